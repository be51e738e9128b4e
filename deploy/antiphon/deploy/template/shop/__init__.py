"""Orders: goods are set aside, then the customer is charged, and if one of them says no, nothing is left behind."""
