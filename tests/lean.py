"""Studies that measure less: the baselines that most tests do not look at take longer than their trials."""

from featherweight.study.baselines import baseline_candidates

BASELINES = "featherweight.study.baselines.baseline_candidates"  # what a study asks


def reference_only(config, space):
    """The baseline that everything is compared with, and no other."""
    return baseline_candidates(config, space)[:1]
