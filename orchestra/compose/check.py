"""x"""
from __future__ import annotations
def check(tree, ctx, problems): pass
def references(tree, active, ctx, problems): pass
