"""The review of a branch's revisions: what a pull request should know before it is merged."""
