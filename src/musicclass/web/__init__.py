"""The web page and the API. The way of a request:

guard.py (token, origin, size) -> app.py (routes) -> jobs.py (a bounded queue) -> hearing.py (in a worker process)
"""
