"""The graph of a project: services, and the networks, volumes, secrets, configs and models they use.

An edge goes from the one that needs to the one that is needed. The only module that imports networkx,
and only when it is asked something. Orders are deterministic: names sort within a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestra.errors import OrchestraError

if TYPE_CHECKING:
    import networkx as nx

    from orchestra.compose.model import Project, Service

Layers = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """A node: ``kind`` is service, network, volume, secret, config or model."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Link:
    """An edge. ``label`` says what it means (a condition, ``rw``, ``ro``, ``build``); an optional link
    may fail; ``restart``: the dependent restarts with its dependency."""

    source: Thing
    target: Thing
    label: str = ""
    optional: bool = False
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything a renderer needs. ``notes`` are short facts about a node; ``layers`` the start order."""

    name: str
    things: tuple[Thing, ...]
    links: tuple[Link, ...]
    layers: Layers
    notes: Mapping[Thing, str]


def warm() -> None:
    """Load networkx, which takes its time, before it is needed."""
    import networkx

    networkx.DiGraph()


class CycleError(OrchestraError):
    """Services that wait for each other."""

    def __init__(self, chain: tuple[str, ...]) -> None:
        super().__init__(f"dependency cycle: {' -> '.join(chain)}", hint="remove one of these dependencies")
        self.chain = chain


def links(project: Project) -> list[Link]:
    """All edges of the active services, sorted."""
    found = [link for service in project.services.values() for link in _links(service)]
    return sorted(found, key=lambda link: (link.source, link.target, link.label))


def _links(service: Service) -> Iterable[Link]:
    own = Thing("service", service.name)
    for name, item in service.depends_on.items():
        yield Link(own, Thing("service", name), item.condition, not item.required, item.restart)
    if service.build is not None:
        for context in service.build.additional_contexts.values():
            if context.startswith("service:"):
                yield Link(own, Thing("service", context[8:]), "build")
        for secret in service.build.secrets:
            yield Link(own, Thing("secret", secret.source), "build")
    for name in service.networks:
        yield Link(own, Thing("network", name))
    for mount in service.volumes:
        if mount.type in ("volume", "cluster") and mount.source:
            yield Link(
                own, Thing("volume", mount.source), f"{mount.target}{':ro' if mount.read_only else ''}"
            )
    for kind, grants in (("secret", service.secrets), ("config", service.configs)):
        for grant in grants:
            yield Link(own, Thing(kind, grant.source), grant.target)
    for name in service.models:
        yield Link(own, Thing("model", name))


def graph(project: Project) -> nx.DiGraph[Thing]:
    """The whole graph; nodes are :class:`Thing`, edges carry their :class:`Link` as ``link``."""
    import networkx as nx

    made: nx.DiGraph[Thing] = nx.DiGraph(name=project.name)
    for kind, items in _sections(project):
        made.add_nodes_from(Thing(kind, name) for name in sorted(items))
    for link in links(project):
        if link.target.kind != "service" or link.target.name in project.services:
            made.add_edge(link.source, link.target, link=link)
    return made


def _sections(project: Project) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    return (
        ("service", project.services),
        ("network", project.networks),
        ("volume", project.volumes),
        ("secret", project.secrets),
        ("config", project.configs),
        ("model", project.models),
    )


def services(project: Project) -> nx.DiGraph[str]:
    """Services alone: an edge from the dependent to the dependency."""
    import networkx as nx

    made: nx.DiGraph[str] = nx.DiGraph()
    made.add_nodes_from(sorted(project.services))
    for link in links(project):
        if link.target.kind == "service" and link.target.name in project.services and link.label != "build":
            made.add_edge(link.source.name, link.target.name)
    return made


def cycle(project: Project) -> tuple[str, ...]:
    """The chain of a dependency cycle (first name repeated at the end), or nothing."""
    import networkx as nx

    try:
        edges = nx.find_cycle(services(project))
    except nx.NetworkXNoCycle:
        return ()
    return (*(str(edge[0]) for edge in edges), str(edges[0][0]))


def start_order(project: Project) -> Layers:
    """Layers of services: each needs only services of earlier layers. Raises :class:`CycleError`."""
    import networkx as nx

    chain = cycle(project)
    if chain:
        raise CycleError(chain)
    return tuple(tuple(sorted(layer)) for layer in nx.topological_generations(services(project).reverse()))


def stop_order(project: Project) -> Layers:
    """The reverse: nobody stops before those that need it."""
    return tuple(reversed(start_order(project)))


def dependencies(project: Project, names: Iterable[str]) -> set[str]:
    """The services, and all they need."""
    return _reach(services(project), names)


def _reach(made: nx.DiGraph[str], names: Iterable[str]) -> set[str]:
    import networkx as nx

    found: set[str] = set()
    for name in names:
        if name in made:
            found |= {name, *nx.descendants(made, name)}
    return found


def shared_with(service: Service) -> set[str]:
    """The services whose namespaces or volumes ``service`` joins."""
    modes = (service.network_mode, service.ipc, service.pid, service.uts, service.cgroup)
    found = {mode.removeprefix("service:") for mode in modes if mode.startswith("service:")}
    for entry in service.volumes_from:
        if not entry.startswith("container:"):
            found.add(entry.split(":", 1)[0])
    return found


def in_order(project: Project, names: Iterable[str], *, deps: bool = True) -> list[str]:
    """The services and (``deps``) all they depend on or share something with, each behind what it needs;
    otherwise as given."""
    import networkx as nx

    if not deps:
        return list(dict.fromkeys(names))
    made: nx.DiGraph[str] = nx.DiGraph()
    made.add_nodes_from(project.services)
    for service in project.services.values():
        needed = (*service.depends_on, *sorted(shared_with(service)))
        made.add_edges_from((service.name, other) for other in needed if other in project.services)
    return walk(made, names)


def walk(made: nx.DiGraph[str], names: Iterable[str]) -> list[str]:
    """The nodes and all that they need, dependencies first."""
    import networkx as nx

    found: dict[str, None] = {}
    for name in names:
        if name not in found:
            found.update(dict.fromkeys(nx.dfs_postorder_nodes(made, name)))
    return list(found)


def resources(made: nx.DiGraph[Thing], project: Project, names: Iterable[str], kind: str) -> list[str]:
    """The networks (or volumes …) that these services use by the project's graph, in the project's order."""
    wanted = {
        thing.name
        for name in names
        for thing in made.successors(Thing("service", name))
        if thing.kind == kind
    }
    return [name for name in dict(_sections(project))[kind] if name in wanted]


def affected(edges: Mapping[str, Iterable[str]], names: Iterable[str]) -> set[str]:
    """``names`` and everything that needs them; ``edges``: name → what it needs."""
    import networkx as nx

    made: nx.DiGraph[str] = nx.DiGraph()
    made.add_edges_from((name, other) for name, others in edges.items() for other in others)
    return set(names).union(*(nx.ancestors(made, name) for name in names if name in made))


def sorted_by_need(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """The keys, each behind those it needs; otherwise in the given order. Raises AssertionError for a
    circle."""
    import networkx as nx

    made: nx.DiGraph[str] = nx.DiGraph()
    made.add_nodes_from(edges)
    made.add_edges_from((name, other) for name, others in edges.items() for other in others)
    order = walk(made, edges)
    place = {name: index for index, name in enumerate(order)}
    if any(place[other] >= place[name] for name, other in made.edges):
        raise AssertionError(f"a circle: {nx.find_cycle(made)}")
    return order


def drawing(project: Project) -> Drawing:
    """The graph with what there is to tell about its nodes."""
    made = graph(project)
    notes: dict[Thing, str] = {}
    for name, service in project.services.items():
        facts = [service.image or ("build" if service.build else "provider" if service.provider else "")]
        if service.replicas != 1:
            facts.append(f"×{service.replicas}")
        facts += [f"{port.published or '?'}→{port.target}/{port.protocol}" for port in service.ports]
        notes[Thing("service", name)] = " ".join(fact for fact in facts if fact)
    for kind, items in _sections(project)[1:]:
        for name, item in items.items():
            notes[Thing(kind, name)] = (
                "external" if getattr(item, "external", False) else getattr(item, "driver", "")
            )
    edges = tuple(link for link in links(project) if made.has_edge(link.source, link.target))
    return Drawing(project.name, tuple(sorted(made.nodes, key=_place)), edges, start_order(project), notes)


_ORDER = ("service", "network", "volume", "secret", "config", "model")


def _place(thing: Thing) -> tuple[int, str]:
    return _ORDER.index(thing.kind), thing.name
