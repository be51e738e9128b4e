"""An order system in three services: what Antiphon asks of a team, complete enough to run and small enough to copy.

`messages` is what the services share, `saga` the order in which things happen, and `inventory`, `billing` and
`shipping` are the services. Nothing is imported here, so that a service's container loads its own module only.
"""
