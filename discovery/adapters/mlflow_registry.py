"""MLflow's models and registry: what a run was made with and made, as pages of their own; each of them once, whoever asks.

A LoggedModel is found by a tag, a registered version by its digest; of two that were made at once the one that is settled on stays and the
others are deleted, as with runs. Every function may break off between any two calls and be called again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from discovery.adapters.mlflow_tracking import DESCRIPTION_LIMIT, DIGEST_TAG, Settle, found, retried

IDENTITY_TAG = "discovery.identity"
WAIT_S = 10.0  # for another publisher to register the same version; it may have been killed


@dataclass(frozen=True, slots=True)
class ModelContent:
    """A LoggedModel: `identity` is what makes it one, `kind` what MLflow lists as its type."""

    name: str
    kind: str
    identity: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    source_run_id: str = ""


def settled_model(client: Any, experiment_id: str, content: ModelContent, settle: Settle) -> str:
    """The id of the one LoggedModel of this identity in an experiment, ready; of several that were made, the others are deleted."""
    condition = f"tags.`{IDENTITY_TAG}` = '{content.identity}'"
    known = [str(model.model_id) for model in client.search_logged_models([experiment_id], filter_string=condition)]
    if not known:
        made = client.create_logged_model(
            experiment_id, name=content.name, source_run_id=content.source_run_id or None, model_type=content.kind,
            tags={**content.tags, IDENTITY_TAG: content.identity}, params={key: value[:6000] for key, value in content.params.items()},
        )  # fmt: skip
        known = [str(made.model_id)]
    model_id = settle(sorted(known)[0], lambda other: found(lambda: client.get_logged_model(other)) is not None)
    for other in set(known) - {model_id}:
        found(lambda other=other: client.delete_logged_model(other))  # type: ignore[misc]
    if str(client.get_logged_model(model_id).status) != "READY":
        client.finalize_logged_model(model_id, "READY")
    return model_id


def link_models(client: Any, run_id: str, *, inputs: Collection[str] = (), outputs: Collection[str] = ()) -> None:
    """Enter models as what a run was made with, and as what it made; those that are entered stay."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    def enter() -> None:
        run = client.get_run(run_id)
        has_inputs = {item.model_id for item in (run.inputs.model_inputs if run.inputs else ())}
        has_outputs = {item.model_id for item in (run.outputs.model_outputs if run.outputs else ())}
        if new := [LoggedModelInput(model_id) for model_id in inputs if model_id not in has_inputs]:
            client.log_inputs(run_id, models=new)
        if made := [LoggedModelOutput(model_id, 0) for model_id in outputs if model_id not in has_outputs]:
            client.log_outputs(run_id, made)

    retried(enter)  # of two publishers at once the second is refused: UNIQUE constraint


def model_metrics(client: Any, run_id: str, model_id: str, metrics: Mapping[str, float], made_ms: int) -> None:
    """Values of a run that belong to a model, so that the model's page lists the run. made_ms: the same on a retry, which so adds nothing."""
    from mlflow.entities import Metric

    client.log_batch(run_id, metrics=[Metric(name, value, made_ms, 0, model_id=model_id) for name, value in metrics.items()])


def settled_version(
    client: Any, name: str, digest: str, model_id: str, run_id: str, tags: Mapping[str, str], settle: Settle, *, about: str, is_first: Callable[[], bool]
) -> str:  # fmt: skip
    """The number in MLflow of the one registered version of this digest; of several that were made, the others are deleted.

    about: describes the registered model, when it is made. is_first: whether this caller is the first that wants to register it; any other one
    waits a while for that one's version, since MLflow never gives the number of a deleted version again.
    """
    if found(lambda: client.get_registered_model(name)) is None:
        _made_once(lambda: client.create_registered_model(name, description=about[:DESCRIPTION_LIMIT], tags={"discovery.kind": "collection"}))

    def known() -> list[tuple[int, str]]:
        condition = f"name = '{name}' and tag.`{DIGEST_TAG}` = '{digest}'"
        return sorted((int(item.version), str(item.run_id)) for item in client.search_model_versions(condition))

    def is_known() -> bool:
        return any(run == run_id for _, run in known())

    if not is_known():
        until = time.monotonic() + (0 if is_first() else WAIT_S)
        while time.monotonic() < until and not is_known():
            time.sleep(0.2)
    if not is_known():
        source = str(client.get_logged_model(model_id).artifact_location)  # models:/ID would be looked up in another store by an embedded MLflow
        retried(
            lambda: client.create_model_version(
                name, source, run_id=run_id, model_id=model_id, tags={**tags, DIGEST_TAG: digest}, await_creation_for=0
            )
        )
    made = known()
    offered = min(number for number, run in made if run == run_id)
    stands = settle(str(offered), lambda other: has_version(client, name, other, run_id))
    for number, _ in made:
        if str(number) != stands:
            found(lambda number=number: client.delete_model_version(name, str(number)))  # type: ignore[misc]
    return stands


def describe_version(client: Any, name: str, number: str, description: str, tags: Mapping[str, str], dropped: Collection[str] = ()) -> None:
    """Replace a registered version's description, and set or drop tags, where they differ."""
    has = client.get_model_version(name, number)
    if has.description != description[:DESCRIPTION_LIMIT]:
        client.update_model_version(name, number, description[:DESCRIPTION_LIMIT])
    for key, value in tags.items():
        if has.tags.get(key) != value:
            client.set_model_version_tag(name, number, key, value)
    for key in dropped:
        if key in has.tags:
            client.delete_model_version_tag(name, number, key)


def point_aliases(client: Any, name: str, wanted: Mapping[str, str], bad: Collection[str]) -> None:
    """Let exactly these aliases of a registered model point where they should.

    wanted: alias to MLflow's number of its version, empty while that is not there: the alias then stays where it is, so that nobody finds none, but not on
    one of the `bad` numbers. Raises MlflowException, also for a number that MLflow does not have.
    """
    has = {alias: str(at) for alias, at in dict(client.get_registered_model(name).aliases).items()}
    for alias, at in has.items():
        if alias not in wanted or (not wanted[alias] and at in bad):
            client.delete_registered_model_alias(name, alias)
    for alias, at in wanted.items():
        if at and has.get(alias) != at:
            client.set_registered_model_alias(name, alias, at)


def is_shown(client: Any, run_id: str, name: str, number: str, aliases: Collection[str]) -> bool:
    """Whether a run and the registered version of it are both there, and just these aliases point at it."""
    if found(lambda: client.get_run(run_id).info.lifecycle_stage) != "active" or not has_version(client, name, number, run_id):
        return False
    return {alias for alias, at in dict(client.get_registered_model(name).aliases).items() if str(at) == number} == set(aliases)


def version_url(public_url: str, name: str, number: str) -> str:
    """The page of a registered version; without workflowType MLflow opens in another mode, which hides the registry."""
    return f"{public_url.rstrip('/')}/{version_link(name, number)}"


def version_link(name: str, number: str) -> str:
    """The same as a link within MLflow, which holds behind a path prefix too."""
    return f"#/models/{name}/versions/{number}?workflowType=machine_learning"


def run_link(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """A run's page, or one of its artifacts, as a link within MLflow."""
    return f"#/experiments/{experiment_id}/runs/{run_id}{'/artifacts/' + artifact if artifact else ''}?workflowType=machine_learning"


def model_link(experiment_id: str, model_id: str) -> str:
    """A LoggedModel's page as a link within MLflow."""
    return f"#/experiments/{experiment_id}/models/{model_id}?workflowType=machine_learning"


def has_version(client: Any, name: str, number: str, run_id: str) -> bool:
    """Whether a registered version is there, and is that of the run: a registry that was lost gives its numbers anew."""
    item = found(lambda: client.get_model_version(name, number))
    return item is not None and str(item.run_id) == run_id


def _made_once(make: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        make()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another publisher was first
            raise
