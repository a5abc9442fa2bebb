"""Mutation sampling, run by script/mutation: which small faults in the code do the tests detect?"""
