"""What the command line calls: a module for each group of commands, which takes and returns values."""
