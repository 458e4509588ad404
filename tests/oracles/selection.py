"""Choosing among scored replies and counting a judge's verdicts, by loops from the definitions."""


def best(scores):
    """Index of the first reply that no other outscores; None without replies."""
    return next((i for i, score in enumerate(scores) if not any(other > score for other in scores)), None)


def worst(scores):
    """Index of the first reply that outscores no other; None without replies."""
    return next((i for i, score in enumerate(scores) if not any(other < score for other in scores)), None)


def ranking(scores):
    """Indices, best first, one per different score: again and again the best of those that score below the last."""
    order, left = [], list(range(len(scores)))
    while left:
        first = left[best([scores[i] for i in left])]
        order.append(first)
        left = [i for i in left if scores[i] < scores[first]]
    return order


def share_beaten(verdicts):
    """`verdicts[i][j]`: what the judge says where i stands first. Who wins in both orders gets 1, else each a half."""
    shares = []
    for i in range(len(verdicts)):
        points = []
        for j in range(len(verdicts)):
            if i != j:
                one_order = {"first": i, "second": j}.get(verdicts[i][j])
                other_order = {"first": j, "second": i}.get(verdicts[j][i])
                winner = one_order if one_order == other_order else None
                points.append(0.5 if winner is None else float(winner == i))
        shares.append(sum(points) / len(points))
    return shares
