"""Real peers to test a gateway against: servers, clients, and the processes they run in.

Every server here writes down each request it serves (`journal`), so a request that reached the wrong
instance is counted from the instances' own logs and never from what a client believes.
"""
