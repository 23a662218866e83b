"""The instructions that change only the image's configuration. Pure but for the state they change."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from orchestra.build import instructions as ins
from orchestra.build.problems import DockerfileError
from orchestra.build.stages import expand_at
from orchestra.build.state import State
from orchestra.build.words import WordError, expand
from orchestra.errors import UsageError
from orchestra.images.config import duration, ports

_SIGNAL_LIMIT = 64
_DEFAULT_SHELL = ["/bin/sh", "-c"]


def shell_of(state: State) -> list[str]:
    return state.settings.shell or list(_DEFAULT_SHELL)


def value(state: State, instruction: ins.Instruction, text: str) -> str:
    """``text`` with the variables of this moment."""
    return expand_at(instruction, text, state.variables(), state.shared.plan.escape)


def command_line(state: State, command: ins.Command) -> list[str]:
    if command.words is not None:
        return list(command.words)
    return [*shell_of(state), command.shell]


def apply(state: State, instruction: ins.Instruction) -> bool:
    """Whether ``instruction`` was one of these."""
    handler = _HANDLERS.get(type(instruction))
    if handler is None:
        return False
    try:
        handler(state, instruction)
    except UsageError as error:
        raise _located(instruction, error.brief, error.hint) from None
    except WordError as error:
        raise _located(instruction, error.brief, None) from None
    if not isinstance(instruction, ins.Arg):
        state.add(None, instruction.text)
    return True


def _located(instruction: ins.Instruction, brief: str, hint: str | None) -> DockerfileError:
    return instruction.line.error(brief, 0, hint)


def _arg(state: State, one: ins.Arg) -> None:
    shared = state.shared
    for name, default in one.pairs:
        if name in shared.args:
            state.args[name] = shared.args[name]
        elif default is not None:
            state.args[name] = value(state, one, default)
        elif name in shared.plan.global_args:
            state.args[name] = shared.plan.global_args[name]
        elif name in shared.plan.platform_args:
            state.args[name] = shared.plan.platform_args[name]
        elif name in ("TARGETSTAGE",):
            state.args[name] = shared.plan.stages[shared.plan.target].label


def _env(state: State, one: ins.Env) -> None:
    known = state.variables()
    escape = state.shared.plan.escape
    fresh = {expand(name, known, escape): expand_at(one, text, known, escape) for name, text in one.pairs}
    state.settings.env.update(fresh)


def _label(state: State, one: ins.Label) -> None:
    for name, text in one.pairs:
        state.settings.labels[value(state, one, name)] = value(state, one, text)


def _cmd(state: State, one: ins.Cmd) -> None:
    state.settings.cmd = command_line(state, one.command)


def _entrypoint(state: State, one: ins.Entrypoint) -> None:
    """An own entrypoint drops the CMD that came with the base image."""
    state.settings.entrypoint = command_line(state, one.command)
    own = any(isinstance(other, ins.Cmd) for other in state.stage.instructions)
    if not own:
        state.settings.cmd = None


def _user(state: State, one: ins.User) -> None:
    state.settings.user = value(state, one, one.user)


def _expose(state: State, one: ins.Expose) -> None:
    for word in one.ports:
        for text in value(state, one, word).split():
            state.settings.exposed_ports += [p for p in ports(text) if p not in state.settings.exposed_ports]


def _volume(state: State, one: ins.Volume) -> None:
    for word in one.paths:
        path = value(state, one, word)
        if not path:
            raise one.line.error("VOLUME needs a path")
        if path not in state.settings.volumes:
            state.settings.volumes.append(path)


def _stop_signal(state: State, one: ins.StopSignal) -> None:
    import signal

    name = value(state, one, one.signal)
    known = name.isdigit() and 0 < int(name) <= _SIGNAL_LIMIT
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    if not known and not full.startswith("SIGRTM") and full not in signal.Signals.__members__:
        raise one.line.error(f"unknown signal {name!r}", one.line.text.find(one.signal))
    state.settings.stop_signal = name


def _shell(state: State, one: ins.Shell) -> None:
    state.settings.shell = list(one.words)


def _healthcheck(state: State, one: ins.HealthCheck) -> None:
    if one.command is None:
        state.settings.healthcheck = {"Test": ["NONE"]}
        return
    command = one.command
    test = ["CMD", *command.words] if command.words is not None else ["CMD-SHELL", command.shell]
    check: dict[str, object] = {"Test": test}
    names = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod",
             "start-interval": "StartInterval"}  # fmt: skip
    for name, text in one.options:
        if name == "retries":
            if not text.isdigit():
                raise one.line.error(f"invalid number of retries {text!r}")
            check["Retries"] = int(text)
        else:
            check[names[name]] = duration(text)
    state.settings.healthcheck = check


def _onbuild(state: State, one: ins.OnBuild) -> None:
    state.settings.on_build.append(one.trigger)


def _maintainer(state: State, one: ins.Maintainer) -> None:
    state.author = one.author


def workdir_path(state: State, one: ins.Workdir) -> str:
    """The absolute path that WORKDIR means now."""
    text = value(state, one, one.path)
    if not text:
        raise one.line.error("WORKDIR needs a path")
    joined = posixpath.normpath(posixpath.join(state.settings.working_dir or "/", text))
    return "/" + joined.lstrip("/")


_HANDLERS: dict[type[ins.Instruction], Callable[..., None]] = {
    ins.Arg: _arg,
    ins.Env: _env,
    ins.Label: _label,
    ins.Cmd: _cmd,
    ins.Entrypoint: _entrypoint,
    ins.User: _user,
    ins.Expose: _expose,
    ins.Volume: _volume,
    ins.StopSignal: _stop_signal,
    ins.Shell: _shell,
    ins.HealthCheck: _healthcheck,
    ins.OnBuild: _onbuild,
    ins.Maintainer: _maintainer,
}
