"""One-line explanations of the metrics that a report shows; docs/metrics.md has the definitions."""

HINTS = {
    "evaluation/return_mean": "mean undiscounted return of an evaluation's episodes, reward units",
    "evaluation/normalized_score": "100 · (return − random return) / (reference − random return)",
    "validation/action_distance": "continuous: mean squared difference of the policy's and the "
    "logged action in [−1, 1]; discrete: share of steps where they differ",
    "validation/td_error": "mean squared TD error on validation steps, squared reward units",
    "validation/gap": "how far the critics rate other actions above the logged one, reward units",
    "validation/q_logged": "mean Q of the logged actions on validation steps, reward units",
    "validation/q_policy": "mean Q of the policy's actions on validation steps, reward units",
    "validation/return_to_go": "mean discounted return that followed a validation step, reward "
    "units",
    "validation/above_best_share": "share of validation steps whose Q of the policy's action is "
    "above the largest return of the training episodes",
}
