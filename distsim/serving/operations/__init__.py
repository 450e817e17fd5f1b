"""What operators do to a service: admission, rates, failures and recovery, autoscaling."""
