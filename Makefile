# Everything a newcomer types. The work is done by scripts under tools/ and tests/, each of which can be run alone.

.PHONY: help setup demo test bench dist crumble clean

help:
	@echo "make demo    boot a small image with examples/hello.c and print what a command in it printed"
	@echo "make test    build and run every test          (one test: tests/run PART_OF_ITS_PATH)"
	@echo "make bench   measure against other tools       (one: tools/bench/run NAME)"
	@echo "make dist    write dist/cc.h, the library as one file"
	@echo "make crumble build/crumble: pull, list and run images from the command line"

demo:
	@tools/setup --for demo
	@tools/demo

test:
	@tools/setup --for test
	@tests/run

bench:
	@tools/setup --for bench
	@tools/bench/run

dist:
	@./amalgamate.py && ls -l dist/cc.h

crumble:
	@tools/setup --for demo
	@mkdir -p build
	$(CC) -std=c11 -O2 -I. tools/crumble.c -o build/crumble -lpthread -l:libbearssl.a

setup:
	@tools/setup

clean:
	rm -rf build dist
