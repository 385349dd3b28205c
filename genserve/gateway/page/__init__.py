"""The gateway's page: five tabs for people, made with Gradio, that ask the server as any client does."""
