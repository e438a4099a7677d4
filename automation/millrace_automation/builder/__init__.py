"""Builds environments of libraries, in a process of its own that holds no secret but its own key.

main -> build -> steps --> shut_in (no files but those it needs; to install, no network) --> pip
  `-> teller --lines--> automations
"""
