"""As ``test_same_commands``, with the policy that is shipped: it needs torch."""

from mobile_vla.policy.weights import SHIPPED, load_policy

from .two_ways import compare


def test_the_shipped_policy_gives_the_same_commands(namespace, domain):
    compare(load_policy(SHIPPED), namespace, domain)
