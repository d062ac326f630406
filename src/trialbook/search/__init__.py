"""Searches as ask and tell: the loop, and one module for each library that proposes trials."""
