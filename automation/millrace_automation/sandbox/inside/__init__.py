"""What runs as the sandbox's own processes: the parent, and the prepared children that it forks.

Started with `env -i python -I -S`, this folder as a package of its own: it imports the standard library and itself, nothing else, and
holds no secret. Everything the kernel is asked for goes through `system.py`.

  parent --clone--> init (tree, limits, reaping, report) --fork--> script (Landlock, seccomp, requests, the user's code)
  fresh runs in tier 2, as root (docs/adr/0006-pause.md):
  parent --clone--> pause (pid 1: sleeps)
         --clone--> entry (pid 2: tree, user, Landlock, seccomp, one request, the user's code)
"""
