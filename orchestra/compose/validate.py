"""x"""
def validate(tree, problems): pass
