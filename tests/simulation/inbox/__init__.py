"""One row of the inbox, in every state that it can come into."""
