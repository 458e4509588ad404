"""What people said: their chats, the answers they compared, their labels, and who they are."""

PREFIX = "feedback:"  # of a store where rows are asked for
