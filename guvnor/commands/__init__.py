"""What the command line calls: a module for each group of commands, values in, values out."""
