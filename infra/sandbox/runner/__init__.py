"""Code that runs inside a session on one machine, and the code that makes the sandbox around it.

It is started in one of five ways. Each talks JSON lines over a Unix socket with the supervisor, the
agent's half outside:

* ``warm SOCKET``: the warm process. It has promptflow's executor imported and has run a flow. A
  client sends in one line what its session is made of, and a fork of the warm process becomes that
  session's runner, on that very connection.
* ``isolate``: a fresh interpreter (standard library only). Its standard input is the socket. It
  enters the sandbox, and there becomes the program that it was told: a runner (``inside``), or a
  build.
* ``inside``: the runner, in the sandbox already.
* ``run``: what sees one run through, where a fork of the runner would not be safe; ``work``: a
  process of it that runs the flow's code.

Only this package, the standard library and the base environment are loaded before the sandbox is
closed.
"""
