"""Servers in virtual time: what many of them behind a proxy would do, by the rules of one."""
