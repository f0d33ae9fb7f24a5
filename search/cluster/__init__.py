"""Ray sessions, jobs on a cluster, Kubernetes manifests, and checks of the machine."""
