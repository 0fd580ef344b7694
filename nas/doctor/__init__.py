"""Looks at this machine and at the files of a run, and says what is broken and what to do."""
