"""Text → frozen Project: the order of the steps, and nothing else.

Per file and per YAML document: parse → interpolate → include → reset/override → extends → merge →
unique → ``validate.validate(tree, problems)`` → ``normalize.canonical(tree, ctx)`` → unique.
``canonical`` therefore sees the merged tree so far, again and again: it must be idempotent, and it
also runs on unvalidated files reached by ``extends`` (so it leaves alone any shape it does not know).
Then once: ``normalize.defaults(tree, ctx)``, ``check.check(tree, ctx, problems)``,
``normalize.resolve_paths(tree, ctx)`` (unless no_path_resolution), ``normalize.names(tree, ctx)``
(unless no_normalize), profiles and selection (fills ``ctx.disabled``: service → reason),
``check.references(tree, active, ctx, problems)`` (unless no_consistency; ``active`` a set of names),
env_file/label_file into environment/labels, ``bind.bind(tree, ctx)``.
All of them change the tree in place (return values but bind's are ignored); problems are recorded in
``problems``, or raised with ``problems.fail(…)`` where going on makes no sense.
``bind`` gets all services in the tree; those in ``ctx.disabled`` belong to ``Project.disabled``.
"""
