"""A travel agency in four services: every shape that a saga can have in one example, complete enough to run.

`messages` is what the services share, `saga` the order in which things happen, and `airline`, `hotel`, `cars` and
`payments` are the services. Nothing is imported here, so that a service's container loads its own module only.
"""
