"""What a person sees of Antiphon: the command line as a process, and what it says when something is missing."""
