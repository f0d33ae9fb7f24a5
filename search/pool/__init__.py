"""A pool of Ray Train worker groups that stay loaded between jobs, and the queue that supplies them."""
