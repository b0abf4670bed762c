"""The classifier as an application of Ray Serve: `serve run service.ray_app:app`.

Each replica is the whole service on its share of a machine; Ray Serve starts as many as are asked,
on as many machines as there are, and replaces those that die. docs/clusters.md says how to run it.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError

from models.cores import usable_cores
from models.engines import BATCH_CPU, BATCH_CUDA
from models.errors import ArtifactError, LegacyModelError
from models.terminal import described
from service.app import create_app
from service.observation import log_to_stderr
from service.settings import KEYS, SettingError, Settings, artifacts

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports its use to its makers
try:
    from click import ClickException
    from ray import serve
    from ray.serve.config import AutoscalingConfig
    from ray.serve.exceptions import RayServeException
except ImportError as error:
    cure = "pip install 'relume[ray]'"
    raise ImportError(f"Ray Serve cannot be imported ({error}): {cure}") from error

# What Serve itself decides: its port, its log, its replicas.
SERVES = ("host", "port", "workers", "header_s")


class NotServed(ClickException, RayServeException):
    """What `serve run` says in one line, and what `serve status` says of an application."""


def app(arguments: dict[str, Any]) -> serve.Application:
    """Return the application that the settings describe.

    Args:
        arguments: Settings by their names, such as `model` and `queue`, before the CLASSIFY_
            variables; and fields of Serve's AutoscalingConfig, such as `max_replicas`.

    Raises:
        NotServed: An argument is unknown or impossible, or there is no artifact.
    """
    fields = AutoscalingConfig.model_fields
    scaling = {name: value for name, value in arguments.items() if name in fields}
    try:
        settings = settings_of({name: arguments[name] for name in arguments.keys() - scaling})
        share = options(settings, scaling)
    except LegacyModelError as error:
        raise NotServed(str(error)) from error
    except OSError as error:
        raise NotServed(described(error)) from error
    replica = serve.ingress(_builder(settings))()
    made: serve.Application = serve.deployment(name="classifier", **share)(replica).bind()
    return made


def settings_of(arguments: Mapping[str, object]) -> Settings:
    """Return the settings of a replica, with a path that holds in every process.

    Raises:
        SettingError: An argument is none that a replica has, or has an impossible value.
        ArtifactError: There is no artifact.
    """
    known = [name for name in KEYS if name not in SERVES]
    if unknown := sorted(set(arguments) - set(known)):
        owner = "Serve's own configuration has it" if unknown[0] in SERVES else "no such setting"
        raise SettingError(
            f"{unknown[0]}: {owner}: arguments are {', '.join(known)}, and min_replicas, "
            "max_replicas and the other fields of AutoscalingConfig"
        )
    given = {KEYS[name]: str(value) for name, value in arguments.items() if value is not None}
    settings = Settings.from_env({**os.environ, **given})
    source = settings.source.resolve()
    if missing := [path for path in artifacts(source) if not path.exists()]:
        raise ArtifactError(f"{missing[0]}: no such file")
    return replace(settings, model=source, threads=settings.threads or 1)


def options(settings: Settings, scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Serve has to know: a replica's share of a machine, and when there are more.

    Without `max_replicas` there are as many as this machine has cores for.

    Raises:
        SettingError: Serve cannot scale like that.
    """
    cores, on_gpu = settings.threads or 1, settings.device == "cuda"
    lanes, batch = (1, BATCH_CUDA) if on_gpu else (cores, BATCH_CPU)
    busy = lanes * (settings.max_batch or batch)
    defaults = {
        "target_ongoing_requests": 2 * busy,  # what is run, and what is ready when that is done
        "max_replicas": 1 if on_gpu else max(1, usable_cores() // cores),
        "upscale_delay_s": 5.0,  # a replica is ready in seconds: half a minute would be lost
    }
    try:
        autoscaling = AutoscalingConfig(**{**defaults, **scaling})
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"])) or "AutoscalingConfig"
        found = f"found {first['input']!r}: " if first["loc"] else ""
        raise SettingError(f"{what}: {found}{first['msg']}") from error
    return {
        "autoscaling_config": autoscaling,
        "ray_actor_options": {"num_cpus": cores, "num_gpus": int(on_gpu)},
        # More than are let in: who is too many gets the service's own 503, and does not wait here.
        "max_ongoing_requests": settings.max_connections,
        "max_queued_requests": settings.max_connections,
        "graceful_shutdown_timeout_s": settings.drain_s,
    }


def _builder(settings: Settings) -> Any:
    def build() -> FastAPI:
        log_to_stderr(settings.log_format)
        return create_app(settings)

    return build
