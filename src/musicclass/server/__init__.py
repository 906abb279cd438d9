"""The web UI and the HTTP API. A request passes:

security.py (host, origin, token, size) -> app.py (routes) -> jobs.py (queue) -> inference.py (in a worker process)
"""
