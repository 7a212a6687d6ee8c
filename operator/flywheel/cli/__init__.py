"""`kubectl flywheel`: what people ask and tell the operator, with nothing but their own rights.

Everything here reads or patches objects of the API server; no decision is made, so that kubectl alone could do the same.
Objects are read as dictionaries by `reading`, not as the models of `api`: a command must show what a newer operator wrote.
"""
