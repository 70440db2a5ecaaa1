"""Repositories of binary packages: a small tool that takes the command lines of eit and equo, so that tests can build profiles/kantoo.

It is not Entropy, and its repositories are not Entropy's. Portage does what concerns packages that are installed: it compares atoms and
versions, merges, and runs the phases of packages.
"""
