"""The review of a branch's revisions: what a reviewer should know before the merge."""
