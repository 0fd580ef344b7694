"""Commands `nas analyse ...`: how well a run's scores can be predicted."""

import json
from typing import Annotated

import typer
from rich.console import Console

from nas.cli.common import AsJson, RunDir, TrustCode, allow_local_modules


def predictor(
    run_dir: RunDir,
    metric: Annotated[
        str | None, typer.Option(help="The objective to predict. Default: all that need training.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", help="The k of precision@k and N@k. Default: a fifth of the candidates.")
    ] = None,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
) -> None:
    """Cross-validate the predictors of scores on a run's candidates."""
    from nas import api

    allow_local_modules(trust_code)
    report = api.analyse_predictor(run_dir, metric=metric, k=k, trust_code=trust_code)
    if as_json:
        print(json.dumps(report.to_plain(), indent=2))
    else:
        Console().print(report.table(run_dir.name))


def curves(
    run_dir: RunDir,
    metric: Annotated[
        str | None, typer.Option(help="The score to predict. Default: the first objective that needs training.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cross-validate the prediction of final scores from the first epochs of each training."""
    from nas import api

    report = api.analyse_curves(run_dir, metric=metric)
    if as_json:
        print(json.dumps(report.to_plain(), indent=2))
    else:
        Console().print(report.table(run_dir.name))
