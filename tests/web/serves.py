"""A site of one echo over a store, until it is killed: python serves.py STORE PORT"""

import sys

from fairlead.feedback.store import open_store
from fairlead.serve.app import Server
from fairlead.serve.models import Echo
from fairlead.serve.run import serve
from fairlead.web.site import Site

server = Server({"echo": Echo()})
site = Site(open_store(sys.argv[1]), server, ["echo"])
serve(
    server.app(site), host="127.0.0.1", port=int(sys.argv[2]), keys=(), pages=site,
    ready=lambda address: print(address, flush=True),
)  # fmt: skip
