"""What the fixtures are made of: a server, the command line as a subprocess, a project of revision files."""
