"""One saga whose messages change under the same names and versions, as teams' do: a module for each state of them.

The definition is the same in all, and so is its hash.
"""
