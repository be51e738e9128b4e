"""The order system a third time: reserved and charged by command, and shipped by whoever hears that it is paid for.

`messages` is what is said beyond both other styles, `saga` what is commanded and what is waited for, and `billing` and
`shipping` add their parts to the services of the same names. Inventory needs nothing new.
"""
