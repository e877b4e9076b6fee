"""Where units of work run: in this process, in others of this machine, or on a cluster; what the work is, nobody here
knows.
"""
