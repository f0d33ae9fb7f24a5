"""The pool of warm Ray Train worker groups and the queue that feeds them."""
