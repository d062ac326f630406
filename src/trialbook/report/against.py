"""The report's figures of the objective against the hyperparameters. Plotly draws, and Optuna weighs them."""

from __future__ import annotations

from trialbook.report.climbs import superseded
from trialbook.report.figures import Drawing, about
from trialbook.report.scale import Scale, scales_of
from trialbook.report.study import study_of
from trialbook.report.summary import Summary
from trialbook.tracking import text
from trialbook.trial import Record

# There is a line or a point for each: more would neither be seen nor quickly drawn.
_DRAWN = 300
# Below this many trials, what a hyperparameter seems to explain is chance.
_ENOUGH = 10
_COLORS = "Blues"
# The palest of them cannot be seen on white.
_PALEST = 0.25
# Of a value on an axis, readable where lines cross it.
_LABEL = {"font": {"size": 10}, "bgcolor": "rgba(255,255,255,0.7)", "borderpad": 0}
_NOTHING_VARIES = "No hyperparameter varies among the complete trials."


def parallel_coordinates(summary: Summary) -> Drawing:
    """A line for each trial across the objective and its hyperparameters."""
    import plotly.graph_objects as go
    from plotly.colors import sample_colorscale

    title = "Parallel coordinates"
    records, said = _comparable(summary)
    scales = scales_of(records, summary)
    if not scales:
        return Drawing(title, None, _NOTHING_VARIES)
    # Lines go from the objective to what every trial has, and last to what only some have.
    names = sorted(scales, key=lambda name: sum(name not in r.trial.params for r in records))
    objectives = Scale.of([r.objective for r in records])
    merits = [objectives.place(r.objective) for r in records]
    merits = merits if summary.maximize else [1 - merit for merit in merits]
    colors = sample_colorscale(_COLORS, [_PALEST + (1 - _PALEST) * merit for merit in merits])
    figure = go.Figure()
    # The best come first, and are drawn last.
    for record, color in reversed(list(zip(records, colors, strict=True))):
        params = record.trial.params
        at = [0, *(i for i, name in enumerate(names, 1) if name in params)]
        figure.add_scatter(
            x=at,
            y=[objectives.place(record.objective), *(scales[n].place(params[n]) for n in names if n in params)],
            mode="lines",
            line={"color": color, "width": 1.3},
            opacity=0.8,
            text=f"{about(record)}<br>{summary.metric} {record.objective:.4g}",
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
        )
    axes = [objectives, *(scales[name] for name in names)]
    figure.update_layout(
        xaxis={
            "tickvals": list(range(len(axes))),
            "ticktext": [summary.metric, *names],
            "range": [-0.3, len(axes) - 0.8],
            "showgrid": False,
            "zeroline": False,
        },
        yaxis={"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
        shapes=[
            {
                "type": "line",
                "x0": i,
                "x1": i,
                "y0": 0,
                "y1": 1,
                "layer": "below",
                "line": {"color": "#888", "width": 1},
            }
            for i in range(len(axes))
        ],
        annotations=[
            {"x": i, "y": y, "text": tick, "showarrow": False, "xanchor": "right", "xshift": -3, **_LABEL}
            for i, axis in enumerate(axes)
            for y, tick in axis.ticks()
        ],
    )
    return Drawing(
        title, figure, f"The better a trial, the darker its line. {said}".strip(), width=110 * (len(axes) + 1)
    )


def slices(summary: Summary) -> Drawing:
    """The objective against each hyperparameter."""
    from plotly.subplots import make_subplots

    records, said = _comparable(summary)
    scales = scales_of(records, summary)
    if not scales:
        return Drawing("Slices", None, _NOTHING_VARIES)
    figure = make_subplots(rows=1, cols=len(scales), shared_yaxes=True)
    for column, (name, scale) in enumerate(scales.items(), 1):
        shown = [r for r in records if name in r.trial.params]
        figure.add_scatter(
            row=1,
            col=column,
            x=[text(r.trial.params[name]) if scale.categories else r.trial.params[name] for r in shown],
            y=[r.objective for r in shown],
            mode="markers",
            marker={
                "color": [r.trial.number for r in shown],
                "cmin": min(r.trial.number for r in records),
                "cmax": max(r.trial.number for r in records),
                "colorscale": _COLORS,
                "line": {"width": 0.5, "color": "#888"},
                "showscale": column == 1,
                "colorbar": {"title": "trial"},
            },
            text=[about(r) for r in shown],
            hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
            showlegend=False,
        )
        kind = "category" if scale.categories else "log" if scale.log else "linear"
        order = {"categoryorder": "array", "categoryarray": scale.categories} if scale.categories else {}
        figure.update_xaxes(title_text=name, type=kind, row=1, col=column, **order)
    figure.update_yaxes(title_text=summary.metric, col=1)
    return Drawing("Slices", figure, said, width=230 * len(scales))


def importances(summary: Summary) -> Drawing:
    """How much of the objective's variation each hyperparameter explains."""
    import plotly.graph_objects as go
    from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances

    title = "Importances"
    records, said = _comparable(summary)
    scales = scales_of(records, summary)
    names = [name for name in scales if all(name in r.trial.params for r in records)]
    if len(names) < 2:
        return Drawing(title, None, "Fewer than two hyperparameters vary in every trial, so there is nothing to weigh.")
    if len(records) < _ENOUGH:
        return Drawing(title, None, f"{len(records)} trials are too few to tell; it takes {_ENOUGH}.")
    if len({r.objective for r in records}) == 1:
        return Drawing(title, None, "All trials have the same objective, so no hyperparameter explains any of it.")
    shares = get_param_importances(
        study_of(records, scales, maximize=summary.maximize),
        # A forest is as quick for a thousand trials as for ten; Optuna's default takes seconds.
        evaluator=MeanDecreaseImpurityImportanceEvaluator(seed=0),
        params=sorted(names),  # in any other order this evaluator gives one's importance to another
    )
    # The largest stands at the top.
    ranked = sorted(shares.items(), key=lambda item: item[1])
    figure = go.Figure()
    figure.add_bar(
        x=[share for _, share in ranked],
        y=[name for name, _ in ranked],
        orientation="h",
        text=[f"{share:.2f}" if share >= 0.01 else "<0.01" for _, share in ranked],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y} %{x:.4g}<extra></extra>",
    )
    figure.update_layout(height=120 + 40 * len(names), xaxis_title="importance")
    left_out = [name for name in summary.names if name in scales and name not in names]
    if left_out:
        said += f" Left out, as not every trial has it: {', '.join(left_out)}."
    return Drawing(title, figure, f"What splits by it explain in a random forest. {said}".strip())


def _comparable(summary: Summary) -> tuple[list[Record], str]:
    """The complete trials to compare hyperparameters by: of a candidate that went on, where it got to; and a word."""
    replaced = superseded(summary.records)
    done = [r for r in summary.complete if r.trial.number not in replaced]
    said = []
    if len(done) < len(summary.complete):
        said.append("A candidate that went on with more counts once, with its last score.")
    if len(done) > _DRAWN:
        said.append(f"Of {len(done)} trials the best {_DRAWN}.")
    return done[:_DRAWN], " ".join(said)
