"""The order system once more, in which nobody commands: each service reacts to what the others say has happened.

`messages` is what they say beyond the commands of the other style, `saga` where such an order begins and ends, and
`inventory`, `billing` and `shipping` add their reactions to the services of the same names.
"""
