"""What puts Antiphon onto machines: the command line, the local platform, servers and rights. Nothing imports it."""
