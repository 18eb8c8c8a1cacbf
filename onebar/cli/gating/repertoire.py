"""The repertoire: worked out and looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from onebar.cli.common import JsonOption, command_settings, print_json, run_to_end
from onebar.cli.sections import Whole

if TYPE_CHECKING:
    from onebar.settings import Settings

repertoire = typer.Typer(
    cls=Whole,
    help="Queries that did well where they were shown: what ONEBAR_CONSTRAIN holds answers to.",
    no_args_is_help=True,
)


@repertoire.command("build")
def repertoire_build(as_json: JsonOption = False) -> None:
    """Work the repertoire out of the state now; every process has it within a second. Where
    ONEBAR_CONSTRAIN is not `open`, the generator workers do so by themselves.

    Example: onebar repertoire build
    """
    count = run_to_end(_build(command_settings()))
    print_json({"queries": count}) if as_json else print(f"{count:,} queries")


@repertoire.command("list")
def repertoire_list(
    near: Annotated[str, typer.Option(help="Only those nearest to this text.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """The queries of the repertoire, those nearest to a text or by their letters.

    Example: onebar repertoire list --near "hiking boots"
    """
    total, found = run_to_end(_list(command_settings(), near, limit))
    if as_json:
        print_json({"total": total, "queries": found})
        return
    for query in found:
        print(query)
    print(f"{len(found):,} of {total:,} queries")


async def _build(settings: Settings) -> int:
    from feature_store.opening import open_live_store, repertoire_beside
    from onebar.gating.follow import RuleFollower
    from onebar.recommending.loading import open_gate
    from stream.workers.generator import work_out

    store, gate = await open_live_store(settings), open_gate(settings)
    try:
        await RuleFollower(store, gate).look()
        return await work_out(repertoire_beside(store), gate, settings)
    finally:
        await store.close()


async def _list(settings: Settings, near: str, limit: int) -> tuple[int, list[str]]:
    from feature_store.opening import open_live_store, repertoire_beside
    from onebar.gating.follow import RepertoireFollower
    from onebar.recommending.loading import open_gate

    store, gate = await open_live_store(settings), open_gate(settings)
    try:
        await RepertoireFollower(repertoire_beside(store), gate).look()
    finally:
        await store.close()
    known = gate.repertoire
    found = known.near([near], limit) if near else sorted(known.all_known())[:limit]
    return len(known), list(found)
