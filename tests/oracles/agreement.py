"""How scores agree with labels, from the definitions, one number after the other."""

import math


def pearson(one, other):
    count = len(one)
    mean_one, mean_other = math.fsum(one) / count, math.fsum(other) / count
    product = math.fsum((a - mean_one) * (b - mean_other) for a, b in zip(one, other, strict=True))
    squares = [math.fsum((a - mean) ** 2 for a in values) for values, mean in ((one, mean_one), (other, mean_other))]
    return product / math.sqrt(squares[0] * squares[1])


def rank(value, values):
    """1 for the smallest; equal numbers share the mean of the ranks they take."""
    below = sum(1 for other in values if other < value)
    equal = sum(1 for other in values if other == value)
    return sum(range(below + 1, below + equal + 1)) / equal


def spearman(one, other):
    return pearson([rank(a, one) for a in one], [rank(b, other) for b in other])


def confidence(difference):
    """Probability that the one with the higher score is better (Bradley and Terry)."""
    high, low = max(difference, 0.0), min(difference, 0.0)
    return math.exp(high) / (math.exp(high) + math.exp(low)) if abs(difference) < 700 else 1.0


def credit(difference):
    if difference > 0:
        return 1.0
    return 0.5 if difference == 0 else 0.0


def reliability(differences, num_bins):
    """(pairs, mean confidence, accuracy) of each bin of equal width from 0.5 to 1 that is not empty."""
    found = []
    for number in range(num_bins):
        low, high = 0.5 + 0.5 * number / num_bins, 0.5 + 0.5 * (number + 1) / num_bins
        inside = [d for d in differences if low <= confidence(d) and (confidence(d) < high or number == num_bins - 1)]
        if inside:
            sure, right = sum(map(confidence, inside)), sum(map(credit, inside))
            found.append((len(inside), sure / len(inside), right / len(inside)))
    return found


def calibration_error(differences, num_bins):
    total = 0.0
    for count, sure, right in reliability(differences, num_bins):
        total += count / len(differences) * abs(right - sure)
    return total


def longer_wins(chosen_scores, rejected_scores, chosen_lengths, rejected_lengths):
    """(pairs of different length, share won by the longer by score, by label)."""
    count = by_score = by_label = 0.0
    for chosen, rejected, n, m in zip(chosen_scores, rejected_scores, chosen_lengths, rejected_lengths, strict=True):
        if n == m:
            continue
        count += 1
        by_score += credit(chosen - rejected) if n > m else credit(rejected - chosen)
        by_label += 1.0 if n > m else 0.0
    return count, by_score / count if count else None, by_label / count if count else None
