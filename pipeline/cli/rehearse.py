"""The hidden verb that tests a cluster and its store without a network."""

from __future__ import annotations

import click

from .session import Session

__all__ = ["rehearse"]


@click.command(hidden=True)
@click.option("--cache", required=True, help="An empty place that all workers reach.")
@click.option("--scheduler", help="Address or scheduler file of a running cluster.")
@click.option("--workers", default=0, help="Or start this many local ones.")
@click.option("--blocks", default=100, show_default=True)
@click.option("--block-samples", default=64, show_default=True)
@click.option("--values", default=100_000, show_default=True, help="Activations of one sample.")
@click.option("--block-seconds", default=0.0, help="How long the network would take.")
@click.option("--endpoint", help="Of an S3-compatible store, as http://minio:9000.")
@click.pass_obj
def rehearse(
    session: Session,
    cache: str,
    scheduler: str | None,
    workers: int,
    blocks: int,
    block_samples: int,
    values: int,
    block_seconds: float,
    endpoint: str | None,
) -> None:
    """Write blocks of made-up activations with workers into a store, and report how fast that was.

    \b
    Example:
      actisketch rehearse --scheduler tcp://head:8786 --cache s3://bucket/try --blocks 200
    """
    from ..cluster.rehearsal import RehearsalRecipe, rehearsal_report

    recipe = RehearsalRecipe(shapes=((values,),), batch_size=block_samples, batch_s=block_seconds)
    session.print(
        rehearsal_report(
            recipe,
            cache_url=cache,
            n_blocks=blocks,
            workers=workers,
            scheduler=scheduler,
            endpoint=endpoint,
        )
    )
