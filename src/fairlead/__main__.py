"""`python -m fairlead`, and `torchrun --nproc-per-node 2 -m fairlead sft …` for several processes."""

from fairlead.cli.main import main

if __name__ == "__main__":
    main()
