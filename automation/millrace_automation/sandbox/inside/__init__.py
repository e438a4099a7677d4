"""What runs as the sandbox's own processes: the parent, and the prepared children that it forks.

Started with `env -i python -I -S`, this folder as a package of its own: it imports the standard library and itself, nothing else, and
holds no secret. Everything the kernel is asked for goes through `system.py`.

  parent --clone--> init (pid 1: tree, limits, reaping, report) --fork--> script (Landlock, seccomp, one request, the user's code)
"""
